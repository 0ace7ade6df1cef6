"""Evaluation: bits per base beside Markov models, and scores beside what is known of variants."""
