"""DenseCL: an image and each of its places look up their keys, in two queues."""
