"""The owed amounts, computed a second time in a slow and simple way, and compared with the invoices of Lago's sandbox."""
