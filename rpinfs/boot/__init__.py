"""What runs at every boot before and beside systemd: texts -> settings -> units; what is really mounted; the gate.

Here may live: what the generator and the gate need. Nothing here imports more than os and sys (fcntl where a lock is
taken): every file opened is a round trip to the NAS. Imports from no other room.
"""
