"""Benchmarks of the house: the rows of DESIGN 6, each against a floor measured in the same run.

Absolute figures of a shared machine mean little, so the floor and the measured thing take turns.
A row is a module in ``bench/rows``; nothing here is a test, and nothing of the product imports it.
"""
