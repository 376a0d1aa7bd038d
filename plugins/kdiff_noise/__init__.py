"""The noise sources that come with kdiff; their code is the core's, which needs a default."""
