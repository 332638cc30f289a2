"""Whole experiments: the lines study and the robustness study."""
