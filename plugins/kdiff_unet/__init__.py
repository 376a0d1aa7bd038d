"""Networks that are trained to denoise: the UNet, its relatives, and the small trained model that ships."""
