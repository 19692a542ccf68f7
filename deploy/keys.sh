#!/bin/sh
# Makes the keys that agents and collectors share: sh deploy/keys.sh FOLDER
#   agent_hmac   agents sign what they send with it, collectors check it
#   tenant_salt  of the hashes that stand for tenants' keys; another one makes everybody a stranger
# What is there stays. Nothing is printed but names. The folder is its owner's alone; the files in it can be read by the
# user of a container into which one of them is mounted.
set -eu
folder=${1:?"give the folder for the keys, such as keys"}
umask 022
mkdir -p "$folder"
chmod 700 "$folder"
for name in agent_hmac tenant_salt; do
  [ -s "$folder/$name" ] && continue
  od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n' >"$folder/.$name"
  mv "$folder/.$name" "$folder/$name"
  echo "made $folder/$name"
done
