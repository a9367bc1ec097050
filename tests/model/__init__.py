"""What is owed, worked out a second time, slowly, and compared with what Lago's sandbox invoices."""
