"""The ground that every part of Servescope stands on: errors, logs, keys, addresses, files, words; it knows no part."""
