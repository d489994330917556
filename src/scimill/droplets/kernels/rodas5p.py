"""Rodas5P: an L-stable Rosenbrock-Wanner method of order 5 with 8 stages and an embedded solution of order 4.

Source: G. Steinebach, "Construction of Rosenbrock-Wanner method Rodas5P and numerical benchmarks within the Julia
Differential Equations package", BIT Numer. Math. 63, 27 (2023), doi:10.1007/s10543-023-00967-x.

In the transformed variables of Hairer & Wanner (Solving ODEs II, IV.7), for an autonomous y' = f(y) with Jacobian J:

    (I/(h γ) − J) kᵢ = f(y + Σⱼ Aᵢⱼ kⱼ) + Σⱼ (Cᵢⱼ/h) kⱼ
    y_new = y + Σⱼ A₆ⱼ kⱼ + k₆ + k₇ + k₈,     error estimate = k₈

Stages 7 and 8 start from the previous stage's point plus its k, so A has rows for stages 2 to 6 only.
"""

GAMMA = 0.21193756319429014

A = (
    (3.0,),
    (2.849394379747939, 0.45842242204463923),
    (-6.954028509809101, 2.489845061869568, -10.358996098473584),
    (2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641),
    (-7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256, 0.030198172008377946),
)
"""Rows of A for stages 2 to 6."""

C = (
    (-14.155112264123755,),
    (-17.97296035885952, -2.859693295451294),
    (147.12150275711716, -1.41221402718213, 71.68940251302358),
    (165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306),
    (24.854864614690072, -3.0009227002832186, 47.4931110020768, 5.5814197821558125, -0.6610691825249471),
    (
        30.91273214028599,
        -3.1208243349937974,
        77.79954646070892,
        34.28646028294783,
        -19.097331116725623,
        -28.087943162872662,
    ),
    (
        37.80277123390563,
        -3.2571969029072276,
        112.26918849496327,
        66.9347231244047,
        -40.06618937091002,
        -54.66780262877968,
        -9.48861652309627,
    ),
)
"""Rows of C for stages 2 to 8."""

SAFETY = 0.9
"""The step factor is SAFETY · q^(−3/32), where q is the mean squared scaled error. The exponent lies between −1/(2·5)
of the textbooks and −1/(2·6) of a smoother control, and needs five square roots only."""
SMALLEST_FACTOR, LARGEST_FACTOR = 0.1, 6.0
