# A model that trains in seconds.
n_layer = 2
n_head = 2
n_embd = 32
block_size = 32
