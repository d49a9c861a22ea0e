"""Carries out a plan on a runtime. Knows neither database nor clock: all it may cause goes through `Effects`."""
