"""What ``describe`` says about an object: one module per family of kinds, all writing on the same sheet."""
