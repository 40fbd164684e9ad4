"""The parts of the `pretrain` stage."""
