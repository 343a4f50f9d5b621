"""The leader's loop: dispatch, sweep, gauges."""
