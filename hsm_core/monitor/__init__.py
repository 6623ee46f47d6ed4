"""Watching a sweep from outside its launcher: views over the state that its journal adds up to."""
