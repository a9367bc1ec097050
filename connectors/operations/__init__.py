"""What an operator does to usage that is stored already: find, replay, requeue, explain, reconcile."""
