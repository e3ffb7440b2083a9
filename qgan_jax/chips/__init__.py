"""Chips that need not be here: how to compile for them, and what that costs."""
