"""Explicit methods of order 1 to 3."""

from __future__ import annotations

from ..tableau import checked, root

_SQRT2 = root(2)

LOW = (
    checked("forward_euler", 1, "", "1", reference="Euler 1768", summary="Euler's method"),
    checked(
        "fehlberg2", 2, "| 1/2 | 1/256 255/256", "1/512 255/256 1/512", embedded="1/256 255/256 0",
        embedded_order=1, reference="Fehlberg 1969", summary="Fehlberg's pair 2(1)", aliases=("rkf12",),
    ),
    checked(
        "ees25", 2, "| 1/3 | -5/48 15/16", "1/10 1/2 2/5", reference="arXiv:2507.21006",
        summary="effectively symmetric: its inverse to order 5 by a step back",
    ),
    checked(
        "ees27", 2,
        (
            (),
            ((2 - _SQRT2) / 3,),
            ((_SQRT2 - 4) / 24, (4 + _SQRT2) / 8),
            ((145 * _SQRT2 - 176) / 168, 3 * (8 - 5 * _SQRT2) / 56, 3 * (3 - _SQRT2) / 7),
        ),
        ((5 - 3 * _SQRT2) / 14, (3 + _SQRT2) / 14, 3 * (2 * _SQRT2 - 1) / 14, (9 - 4 * _SQRT2) / 14),
        reference="arXiv:2507.21006", summary="effectively symmetric: its inverse to order 7 by a step back",
    ),
    checked(
        "heun3", 3, "| 1/3 | 0 2/3", "1/4 0 3/4", reference="Heun 1900", summary="Heun's method of order 3",
        aliases=("heun_3s",),
    ),
    checked(
        "kutta3", 3, "| 1/2 | -1 2", "1/6 2/3 1/6", reference="Kutta 1901", aliases=("kutta_3s",),
        summary="Kutta's method of order 3",
    ),
    checked(
        "nystrom3", 3, "| 2/3 | 0 2/3", "1/4 3/8 3/8", reference="Nystrom 1925",
        summary="Nystrom's method of order 3",
    ),
    checked(
        "ralston3", 3, "| 1/2 | 0 3/4", "2/9 1/3 4/9", reference="Ralston 1962",
        summary="three stages with the least bound of the error", aliases=("ralston_3s",),
    ),
    checked(
        "van_der_houwen3", 3, "| 8/15 | 1/4 5/12", "1/4 0 3/4", reference="van der Houwen 1972; Wray 1990",
        summary="for little storage", aliases=("wray3",),
    ),
    checked(
        "ssprk33", 3, "| 1 | 1/4 1/4", "1/6 1/6 2/3", reference="Shu & Osher 1988",
        summary="strong stability preserving, 3 stages", aliases=("ssprk3", "ssprk3_3s"),
    ),
    checked(
        "bogacki_shampine3", 3, "| 1/2 | 0 3/4 | 2/9 1/3 4/9", "2/9 1/3 4/9 0",
        embedded="7/24 1/4 1/3 1/8", embedded_order=2, aliases=("bosh3",),
        reference="Bogacki & Shampine 1989", summary="the pair 3(2) of Bogacki and Shampine",
    ),
    checked(
        "fehlberg3", 3, "| 1/4 | -189/800 729/800 | 214/891 1/33 650/891", "533/2106 0 800/1053 -1/78",
        embedded="214/891 1/33 650/891 0", embedded_order=2, reference="Fehlberg 1969",
        summary="Fehlberg's pair 3(2)", aliases=("rkf23",),
    ),
)  # fmt: skip
