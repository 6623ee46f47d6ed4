"""What watches a sweep: each sees every event once it was journaled and folded, in the engine's thread.

A listener is called with (event, state, time) and has a method `close`.
"""
