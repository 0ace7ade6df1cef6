"""Variant-effect heads: trained on labelled alleles, over a frozen model."""
