"""The way of one video through the house: stages joined by bounded queues."""
