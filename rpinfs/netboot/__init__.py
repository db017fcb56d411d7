"""The server side of netbooting: from a stock image and a NAS to a Pi that boots.

What DHCP, TFTP and NFS must say is planned, written, checked and asked for on the wire here, on any Debian host, with
no configuration of rpinfs. Imports from boot, system, lease, image and docker; neither from health nor from agent.
"""
