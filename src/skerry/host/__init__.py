"""This machine's kernel: control groups, mounts and disks, network namespaces, images."""
