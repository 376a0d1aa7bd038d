"""Explicit methods of order 4 and 5."""

from __future__ import annotations

from fractions import Fraction

from ..tableau import checked, root

_HALF, _SIXTH = Fraction(1, 2), Fraction(1, 6)
_SQRT2, _SQRT5 = root(2), root(5)
_FEHLBERG = (
    "| 1/4 | 3/32 9/32 | 1932/2197 -7200/2197 7296/2197 | 439/216 -8 3680/513 -845/4104"
    "| -8/27 2 -3544/2565 1859/4104 -11/40"
)
_FEHLBERG_4, _FEHLBERG_5 = "25/216 0 1408/2565 2197/4104 -1/5 0", "16/135 0 6656/12825 28561/56430 -9/50 2/55"

FOURTH = (
    checked(
        "rk4", 4, "| 1/2 | 0 1/2 | 0 0 1", "1/6 1/3 1/3 1/6", reference="Kutta 1901",
        summary="the classical Runge-Kutta method", aliases=("rk4_4s", "kutta4"),
    ),
    checked(
        "three_eighths4", 4, "| 1/3 | -1/3 1 | 1 -1 1", "1/8 3/8 3/8 1/8", reference="Kutta 1901",
        summary="Kutta's 3/8 rule", aliases=("rk38", "rk38_4s"),
    ),
    checked(
        "ralston4", 4,
        (
            (),
            ("2/5",),
            ((-2889 + 1428 * _SQRT5) / 1024, (3785 - 1620 * _SQRT5) / 1024),
            (
                (-3365 + 2094 * _SQRT5) / 6040,
                (-975 - 3046 * _SQRT5) / 2552,
                (467040 + 203968 * _SQRT5) / 240845,
            ),
        ),
        (
            (263 + 24 * _SQRT5) / 1812,
            (125 - 1000 * _SQRT5) / 3828,
            (3426304 + 1661952 * _SQRT5) / 5924787,
            (30 - 4 * _SQRT5) / 123,
        ),
        reference="Ralston 1962", summary="four stages with the least bound of the error",
        aliases=("ralston_4s",),
    ),
    checked(
        "gill4", 4,
        ((), (_HALF,), ((_SQRT2 - 1) / 2, 1 - _SQRT2 / 2), (0, -_SQRT2 / 2, 1 + _SQRT2 / 2)),
        (_SIXTH, (2 - _SQRT2) / 6, (2 + _SQRT2) / 6, _SIXTH),
        reference="Gill 1951", summary="Gill's method, against rounding",
    ),
    checked(
        "kuntzmann4", 4, "| 2/5 | -3/20 3/4 | 19/44 -15/44 10/11", "11/72 25/72 25/72 11/72",
        reference="Kuntzmann 1959", summary="Kuntzmann's method of order 4",
    ),
    checked(
        "merson4", 4, "| 1/3 | 1/6 1/6 | 1/8 0 3/8 | 1/2 0 -3/2 2", "1/6 0 0 2/3 1/6",
        embedded="1/10 0 3/10 2/5 1/5", embedded_order=3, reference="Merson 1957",
        summary="Merson's pair 4(3)",
    ),
    checked(
        "zonneveld4", 4, "| 1/2 | 0 1/2 | 0 0 1 | 5/32 7/32 13/32 -1/32", "1/6 1/3 1/3 1/6 0",
        embedded="-1/2 7/3 7/3 13/6 -16/3", embedded_order=3, reference="Zonneveld 1963",
        summary="the classical method in a pair 4(3)",
    ),
    checked(
        "england4", 4, "| 1/2 | 1/4 1/4 | 0 -1 2 | 7/27 10/27 0 1/27 | 28/625 -1/5 546/625 54/625 -378/625",
        "1/6 0 2/3 1/6 0 0", embedded="1/24 0 0 5/48 27/56 125/336", embedded_order=5,
        reference="England 1969", summary="England's pair 4(5)",
    ),
    checked(
        "fehlberg4", 4, _FEHLBERG, _FEHLBERG_4, embedded=_FEHLBERG_5, embedded_order=5,
        reference="Fehlberg 1969", summary="Fehlberg's pair 4(5)", aliases=("rkf45",),
    ),
)  # fmt: skip

FIFTH = (
    checked(
        "fehlberg5", 5, _FEHLBERG, _FEHLBERG_5, embedded=_FEHLBERG_4, embedded_order=4,
        reference="Fehlberg 1969", summary="Fehlberg's pair with the higher order ahead, 5(4)",
    ),
    checked(
        "nystrom5", 5,
        "| 1/3 | 4/25 6/25 | 1/4 -3 15/4 | 2/27 10/9 -50/81 8/81 | 2/25 12/25 2/15 8/75 0",
        "23/192 0 125/192 0 -27/64 125/192", reference="Nystrom 1925",
        summary="Kutta's method of order 5 as Nystrom corrected it", aliases=("kutta5",),
    ),
    checked(
        "butcher5", 5,
        "| 1/4 | 1/8 1/8 | 0 -1/2 1 | 3/16 0 0 9/16 | -3/7 2/7 12/7 -12/7 8/7",
        "7/90 0 16/45 2/15 16/45 7/90", reference="Butcher 1964", summary="Butcher's method of order 5",
    ),
    checked(
        "lawson5", 5,
        "| 1/2 | 3/16 1/16 | 0 0 1/2 | 0 -3/16 3/8 9/16 | 1/7 4/7 6/7 -12/7 8/7",
        "7/90 0 16/45 2/15 16/45 7/90", reference="Lawson 1966", summary="Lawson's method of order 5",
    ),
    checked(
        "cash_karp5", 5,
        "| 1/5 | 3/40 9/40 | 3/10 -9/10 6/5 | -11/54 5/2 -70/27 35/27"
        "| 1631/55296 175/512 575/13824 44275/110592 253/4096",
        "37/378 0 250/621 125/594 0 512/1771",
        embedded="2825/27648 0 18575/48384 13525/55296 277/14336 1/4", embedded_order=4,
        reference="Cash & Karp 1990", summary="the pair 5(4) of Cash and Karp", aliases=("rkck",),
    ),
    checked(
        "dormand_prince5", 5,
        "| 1/5 | 3/40 9/40 | 44/45 -56/15 32/9 | 19372/6561 -25360/2187 64448/6561 -212/729"
        "| 9017/3168 -355/33 46732/5247 49/176 -5103/18656 | 35/384 0 500/1113 125/192 -2187/6784 11/84",
        "35/384 0 500/1113 125/192 -2187/6784 11/84 0",
        embedded="5179/57600 0 7571/16695 393/640 -92097/339200 187/2100 1/40", embedded_order=4,
        reference="Dormand & Prince 1980", summary="the pair 5(4) of Dormand and Prince",
        aliases=("dopri5", "rk45", "dp5"),
    ),
    checked(
        "bogacki_shampine5", 5,
        "| 1/6 | 2/27 4/27 | 183/1372 -162/343 1053/1372 | 68/297 -4/11 42/143 1960/3861"
        "| 597/22528 81/352 63099/585728 58653/366080 4617/20480"
        "| 174197/959244 -30942/79937 8152137/19744439 666106/1039181 -29421/29068 482048/414219"
        "| 587/8064 0 4440339/15491840 24353/124800 387/44800 2152/5985 7267/94080",
        "587/8064 0 4440339/15491840 24353/124800 387/44800 2152/5985 7267/94080 0",
        embedded="2479/34992 0 123/416 612941/3411720 43/1440 2272/6561 79937/1113912 3293/556956",
        embedded_order=4, reference="Bogacki & Shampine 1996",
        summary="the pair 5(4) of Bogacki and Shampine", aliases=("bs5",),
    ),
    checked(
        "cassity5", 5,
        "| 1/7 | -367/4088 261/584 | 41991/2044 -2493/73 57/4 | -108413/196224 58865/65408 5/16 265/1344"
        "| -204419/58984 143829/58984 171/202 2205/404 -432/101",
        "1/9 7/2700 413/810 7/450 28/75 -101/8100", reference="Cassity 1966",
        summary="Cassity's method of order 5",
    ),
)  # fmt: skip
