"""The operations on stored usage: find, replay, requeue, explain, reconcile."""
