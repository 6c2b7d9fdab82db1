"""understudy: learn robot policies from demonstrations, improve them at test time, judge them before the arm moves."""

__version__ = "0.1.0"
