"""Carries out a build from beginning to end, and everything that changes a finished one."""
