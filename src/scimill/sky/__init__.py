"""Sky: pairs of colour and thermal images of Sage nodes, and two networks that learn to agree on them."""
