"""Measurements that the README and the documentation quote; none of them is a test."""
