"""Geometry optimisation by forces alone: does it converge, how fast, how far, and always to the same minimum?"""
