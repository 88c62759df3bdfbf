"""What the service promises when its surroundings fail, proved on real processes."""
