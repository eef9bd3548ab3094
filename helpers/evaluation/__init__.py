"""How good is it: metrics, tables with intervals, speech recognisers."""
