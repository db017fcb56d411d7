"""What the plan says, in the words of each server and appliance: one function a target, pure, from a plan to texts."""
