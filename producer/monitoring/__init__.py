"""Snapshots of the fleet for `status`, `top` and the leader's gauges."""
