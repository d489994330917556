"""The Hasegawa–Wakatani equations, their solvers and diagnostics: pure functions of arrays."""
