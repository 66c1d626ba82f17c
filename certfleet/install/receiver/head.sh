#!/bin/sh
# certfleet's receiver: puts certificates into place on a host and answers in JSON.
#
#   sh receiver.sh install  --root DIR --test CMD --reload CMD [--adopt|--again|--made-here APP]... [--keep APP:N]...  < tar
#   sh receiver.sh rollback --root DIR --test CMD --reload CMD APP:GENERATION...
#   sh receiver.sh status   --root DIR
#   sh receiver.sh check    --root DIR --test CMD --reload CMD [reload]
#   sh receiver.sh remove   --root DIR --test CMD --reload CMD APP...
#   sh receiver.sh cleanup  --root DIR --test CMD --reload CMD [--keep N]
#   sh receiver.sh challenge|withdraw|snippet|request --root DIR --test CMD --reload CMD  < lines
#   sh receiver.sh version
#   sh receiver.sh serve [CONFIGURATION]     one of the above without its --root and the like, see serve.sh
#
# Further options say how the host is set up: --server nginx|apache|haproxy|files, --webroot DIR, and for `files`
# --fullchain|--chain|--combined|--key PATH (with {app} for the app's name), --owner, --file-mode, --key-mode.
# DIR is absolute. CMD is one argument, run by `sh -c`: the web server's configuration test and its reload.
# The tar holds regular files only, named APP/GENERATION/FILE. Answer: one JSON object on standard output,
# exit status 0; 1 when the run as a whole did nothing ("error" says why).
# Needs sh, tar, head, tail, wc, tr, sed, cmp, find, sort, readlink, and an mv that knows -T (GNU, busybox 1.33); and
# openssl where keys are made here.
#
# DIR/APP/GENERATION/      a certificate; complete from the moment it has this name
# DIR/APP/.GENERATION/     what was found changed in a generation that is in use, while it is being put right
# DIR/APP/current          symlink to the generation in use; replaced by rename
# DIR/APP/.certfleet       says that the directory is ours
# DIR/APP.before-certfleet.TIME  what stood in APP's place before it was adopted
# DIR/haproxy.d/APP.pem    symlink to the app's chain and key in one file: what haproxy reads
# DIR/.keys/APP/           keys made here that wait for their certificates, see key.sh
# DIR/.pending             what a run is switching; there until the web server has been reloaded
# DIR/.incoming.PID/       one run's workshop; on the same file system, so that every move is a rename
# DIR/.lock, .lock.owner   one run at a time
#
# A run that is killed leaves .pending: the next run tests what it finds, completes it or puts it back, and reloads.

# shellcheck disable=SC2317 # functions that are called by their name, see `each`
# shellcheck disable=SC2015 # in `A && B || die`, a B that fails is to die as well

set -u
umask 077
LC_ALL=C
PATH=${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/sbin:/sbin
export LC_ALL PATH

archive_limit=67108864 # bytes
file_limit=256         # blocks of 512 bytes
message_limit=500      # bytes of a command's output in the answer
lines_limit=1048576    # bytes of challenges and the like
asked_limit=100000     # characters of what is asked for over SSH
lock_patience=300      # looks at the lock, a tenth of a second apart
kept=3                 # generations that stay
release=''             # this program's name; filled in when its parts are put together

root='' test='' reload='' adopt=' ' again=' ' made=' ' keep=' ' work='' locked=''
server=nginx webroot='' fullchain_place='' chain_place='' combined_place='' key_place=''
owner='' file_mode='' key_mode=''
mode='' error='' reloads=0
results='' # the answer's apps, as JSON
plan=''    # what is to be switched: entries APP:TARGET:PREVIOUS:ASIDE, joined by commas
live=''    # entries in force, each after a comma
altered='' # entries that are switched before all others, because the test fails until they are put right
others=''  # the rest of the plan, when there are such
left=''    # what a killed run left of its plan, and could not be made good
