"""Addresses that older control panels and clients call, one file for each document that describes some. The work is done in `actions`."""
