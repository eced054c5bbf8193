"""Measurements of the whole product on scenes whose truth is known. One command each."""
