"""Errors, atomic writes, provenance and strict configuration: no torch, no biology."""
