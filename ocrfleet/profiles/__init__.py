"""Profiles: engine, model, prompt, sampling and retry policy under one name."""
