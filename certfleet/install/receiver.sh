#!/bin/sh
# certfleet's receiver: puts certificates into place on a host and answers in JSON.
#
#   sh receiver.sh install  --root DIR --test CMD --reload CMD [--adopt APP]...  < tar
#   sh receiver.sh rollback --root DIR --test CMD --reload CMD APP:GENERATION...
#   sh receiver.sh status   --root DIR
#
# DIR is absolute. CMD is one argument, run by `sh -c`: the web server's configuration test and its reload.
# The tar holds regular files only, named APP/GENERATION/FILE. Answer: one JSON object on standard output,
# exit status 0; 1 when the run as a whole did nothing ("error" says why).
# Needs sh, tar, head, tail, wc, tr, sed, find, sort, readlink, and an mv that knows -T (GNU, busybox 1.33).
#
# DIR/APP/GENERATION/      a certificate; complete from the moment it has this name
# DIR/APP/current          symlink to the generation in use; replaced by rename
# DIR/APP/.certfleet       says that the directory is ours
# DIR/APP.before-certfleet.TIME  what stood in APP's place before it was adopted
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
lock_patience=300      # looks at the lock, a tenth of a second apart
kept=3                 # generations that stay

root='' test='' reload='' adopt=' ' work='' locked=''
mode='' error='' reloads=0
results='' # the answer's apps, as JSON
plan=''    # what is to be switched: entries APP:TARGET:PREVIOUS:ASIDE, joined by commas
live=''    # entries in force, each after a comma

# ---------------------------------------------------------------------------------------------- the answer

# Standard input as the inside of a JSON string: bounded, ASCII, without the newlines at its end.
quote() {
	text=$(head -c "$message_limit" | tr -c '\n\t -~' '?' | sed 's/[\\"]/\\&/g')
	printf '%s' "$text" | tr '\n\t' '\001\002' | sed "s/$(printf '\001')/\\\\n/g; s/$(printf '\002')/\\\\t/g"
}

# app state generation previous [message, quoted]
result() {
	serial=''
	if [ "$3" -gt 0 ] && [ -r "$root/$1/$3/serial" ]; then
		read -r serial <"$root/$1/$3/serial" || serial=''
		hexadecimal "$serial" || serial=''
	fi
	message=null
	[ $# -lt 5 ] || message="\"$5\""
	results="$results${results:+,}\"$1\":{\"state\":\"$2\",\"generation\":$3,\"previous\":$4,\"serial\":\"$serial\",\"message\":$message}"
}

finish() {
	pending=false
	[ -z "$root" ] || [ ! -e "$root/.pending" ] || pending=true
	[ -z "$work" ] || rm -rf "$work"
	unlock
	message=null
	[ -z "$error" ] || message="\"$(printf '%s' "$error" | quote)\""
	printf '{"version":1,"reloads":%d,"pending":%s,"apps":{%s},"error":%s}\n' "$reloads" "$pending" "$results" "$message"
	[ -z "$error" ]
	exit
}

die() {
	error=$1 results=''
	finish
}

# ---------------------------------------------------------------------------------------------- words

app_name() {
	case $1 in '' | -* | *[!a-z0-9-]*) return 1 ;; esac
	[ ${#1} -le 63 ]
}

number() {
	case $1 in '' | 0* | *[!0-9]*) return 1 ;; esac
	[ ${#1} -le 9 ]
}

hexadecimal() {
	case $1 in '' | *[!0-9a-f]*) return 1 ;; esac
	[ ${#1} -le 64 ]
}

# APP:TARGET:PREVIOUS:ASIDE into the four variables.
take_apart() {
	app=${1%%:*} aside=${1#*:}
	target=${aside%%:*} aside=${aside#*:}
	previous=${aside%%:*} aside=${aside#*:}
}

# Runs a function for each entry of a list joined by commas; stops at the first that fails.
each() {
	what=$1
	IFS=,
	# shellcheck disable=SC2086 # split at the commas; the names hold no wildcard
	set -- $2
	unset IFS
	for entry; do
		"$what" "$entry" || return 1
	done
}

# ---------------------------------------------------------------------------------------------- one at a time

# When process $1 started, in ticks since boot, or nothing: tells a process from a later one of the same number.
started() {
	line=''
	[ ! -r "/proc/$1/stat" ] || read -r line <"/proc/$1/stat" || line=''
	[ -n "$line" ] || return 0
	# shellcheck disable=SC2086 # the fields after the command's name, which may hold anything
	set -- ${line##*) }
	printf '%s' "${20}"
}

alive() {
	if [ -r /proc/self/stat ]; then
		[ "$(started "${1%%.*}")" = "${1#*.}" ]
	else
		kill -0 "${1%%.*}" 2>/dev/null
	fi
}

wait_for_lock() {
	looks=$((looks + 1))
	[ "$looks" -le "$lock_patience" ] || die "another run of the receiver holds $root/.lock; look at what it waits for"
	sleep 0.1 2>/dev/null || sleep 1
}

# flock ends with its process. Without it: a symlink that names its owner, so that a dead owner's is taken away.
lock() {
	looks=0
	if command -v flock >/dev/null 2>&1; then
		exec 9>>"$root/.lock"
		until flock -n 9; do wait_for_lock; done
		return
	fi
	me=$$.$(started $$)
	until ln -sn "$me" "$root/.lock.owner" 2>/dev/null; do
		owner=$(readlink "$root/.lock.owner") || owner=''
		if [ -n "$owner" ] && ! alive "$owner" && mv -f -T "$root/.lock.owner" "$root/.lock.dead.$$" 2>/dev/null; then
			# Somebody may have been quicker, and this may be their lock.
			[ "$(readlink "$root/.lock.dead.$$")" = "$owner" ] || mv -f -T "$root/.lock.dead.$$" "$root/.lock.owner"
			rm -f "$root/.lock.dead.$$"
			continue
		fi
		wait_for_lock
	done
	locked=yes
}

unlock() {
	[ -z "$locked" ] || rm -f "$root/.lock.owner"
}

# ---------------------------------------------------------------------------------------------- the web server

# The command's output is kept for the answer. It gets neither our input nor our lock.
run() {
	sh -c "$1" >"$work/output" 2>&1 </dev/null 9>&-
}

reload_server() {
	reloads=$((reloads + 1))
	run "$reload"
}

# ---------------------------------------------------------------------------------------------- the tree

# What stands in an app's place: state (new, ours, foreign), and now, the generation in use (0: none).
look() {
	spot=$root/$1 state=ours now=0
	if [ ! -e "$spot" ] && [ ! -L "$spot" ]; then
		state=new
	elif [ -L "$spot" ] || [ ! -f "$spot/.certfleet" ]; then
		state=foreign
	elif [ -L "$spot/current" ]; then
		now=$(readlink "$spot/current")
		if ! number "$now"; then
			state=foreign now=0
		elif ! whole "$spot/$now"; then
			now=0
		fi
	elif [ -e "$spot/current" ]; then
		state=foreign
	fi
}

whole() {
	[ -s "$1/fullchain.pem" ] && [ -s "$1/privkey.pem" ]
}

# Makes a generation current; 0: none.
point() {
	if [ "$2" = 0 ]; then
		rm -f "$root/$1/current"
	else
		ln -sn "$2" "$work/link" && mv -f -T "$work/link" "$root/$1/current"
	fi
}

# Out of sight by one rename, so that no half-deleted directory ever has a generation's name.
discard() {
	[ -e "$1" ] || return 0
	trashed=$((${trashed:-0} + 1))
	mv -f -T "$1" "$work/trash.$trashed" && rm -rf "$work/trash.$trashed"
}

forward() {
	take_apart "$1"
	if [ -n "$aside" ]; then
		mv -f -T "$root/$app" "$root/$aside" && mv -f -T "$work/new/$app" "$root/$app" || return 1
	fi
	point "$app" "$target"
}

back() {
	take_apart "$1"
	if [ -z "$aside" ]; then
		[ ! -e "$root/$app/.certfleet" ] || point "$app" "$previous"
	elif [ -e "$root/$aside" ] || [ -L "$root/$aside" ]; then
		if [ -e "$root/$app" ]; then
			mkdir -p "$work/new" && mv -f -T "$root/$app" "$work/new/$app" || return 1
		fi
		mv -f -T "$root/$aside" "$root/$app"
	fi
}

# Switched only half: what was adopted is aside, and nothing stands in its place yet.
mend() {
	take_apart "$1"
	[ -z "$aside" ] || [ -L "$root/$app/current" ] || back "$1"
}

# What a killed run left: complete it when the web server takes it, else put it back; in any case, reload.
recover() {
	rm -rf "$root"/.incoming.* "$root"/.lock.dead.*
	mkdir "$work" || die "$work cannot be made; look at the permissions of $root and at its free space"
	[ -e "$root/.pending" ] || return 0
	read -r left <"$root/.pending" || left=''
	each mend "$left"
	if ! { run "$test" && reload_server; }; then
		each back "$left"
		run "$test" && reload_server || return 0
	fi
	rm -f "$root/.pending"
}

# ---------------------------------------------------------------------------------------------- what came in

# Only these, and all of these but the IPv6 listeners.
member() {
	case $1 in
	*/*/*/* | *//* | /*) return 1 ;;
	*/*/*) ;;
	*) return 1 ;;
	esac
	app_name "${1%%/*}" || return 1
	generation=${1#*/}
	number "${generation%/*}" || return 1
	case ${1##*/} in
	fullchain.pem | cert.pem | chain.pem | privkey.pem | serial | nginx.conf | nginx-ipv6.conf) ;;
	*) return 1 ;;
	esac
}

# The archive's list is read before anything is unpacked: regular files with the names that we expect.
unpack() {
	archive=$work/archive
	head -c $((archive_limit + 1)) >"$archive" || die "the archive cannot be stored in $root; is the disk full?"
	[ "$(wc -c <"$archive")" -le "$archive_limit" ] || die "the archive is larger than $archive_limit bytes"
	[ -s "$archive" ] && [ -z "$(tail -c 1024 "$archive" | tr -d '\000')" ] || die "the archive is cut off; send it again"
	tar -tf "$archive" >"$work/names" 2>/dev/null && tar -tvf "$archive" >"$work/kinds" 2>/dev/null ||
		die "the archive is not a tar"
	while IFS= read -r name; do
		member "$name" || die "the archive holds an unexpected name: $name"
		IFS= read -r kind <&3
		case $kind in
		# busybox lists a hard link like a file, but with its target.
		*' -> '* | *' link to '*) die "the archive holds a link, not a regular file: $kind" ;;
		-*" $name") ;;
		*) die "the archive holds something other than a regular file: $kind" ;;
		esac
	done <"$work/names" 3<"$work/kinds"
	# recover() may have put here what a killed run had half adopted.
	rm -rf "$work/new"
	mkdir "$work/new" && tar -xof "$archive" -C "$work/new" 2>/dev/null || die "the archive cannot be unpacked in $root; is the disk full?"
	rm -f "$archive"
	[ -z "$(find "$work/new" ! -type d ! -type f)" ] || die "the archive holds something other than a regular file"
	[ -z "$(find "$work/new" -type f -size +"$file_limit")" ] || die "the archive holds a file that is too large"
	find "$work/new" -type f -exec chmod 600 {} + && find "$work/new" -type d -exec chmod 700 {} + || die "modes cannot be set in $root"
	[ -e /proc/net/if_inet6 ] || rm -f "$work"/new/*/*/nginx-ipv6.conf
}

# What nginx will include says where to listen and which files to use, and nothing else: the sender may install
# certificates, not rewrite the site.
fragment() {
	while IFS= read -r line; do
		case $line in
		"ssl_certificate $root/$1/current/fullchain.pem;") ;;
		"ssl_certificate_key $root/$1/current/privkey.pem;") ;;
		listen\ *\ ssl\;)
			line=${line#listen } line=${line% ssl;}
			case $line in *[!][0-9a-f.:]*) die "the archive holds an unexpected nginx line for $1: listen $line" ;; esac
			;;
		*) die "the archive holds an unexpected nginx line for $1: $line" ;;
		esac
	done <"$2"
	[ -z "$line" ] || die "the archive holds an nginx line without an end for $1: $line"
}

# The one generation of an app that came in, complete, into the variable `incoming`.
inspect() {
	set -- "$1" "$work/new/$1"/*
	[ $# = 2 ] || die "the archive holds two generations of $1"
	incoming=${2##*/}
	for file in fullchain.pem privkey.pem; do
		read -r first <"$2/$file" || first=''
		case $first in
		-----BEGIN\ *) ;;
		*) die "the archive lacks $file for $1" ;;
		esac
	done
	for file in cert.pem chain.pem nginx.conf; do
		[ -f "$2/$file" ] || die "the archive lacks $file for $1"
	done
	for file in "$2"/nginx*.conf; do fragment "$1" "$file"; done
	read -r new_serial <"$2/serial" || new_serial=''
	hexadecimal "$new_serial" || die "the archive lacks the serial of $1"
	: >"$work/new/$1/.certfleet"
}

# What to do about one app that came in: an entry in the plan, or its result at once.
decide() {
	inspect "$1"
	look "$1"
	if [ "$state" = foreign ]; then
		case $adopt in
		*" $1 "*) plan="$plan${plan:+,}$1:$incoming:0:$1.before-certfleet.$time" ;;
		*) result "$1" foreign 0 0 "$root/$1 was not put there by certfleet; use --adopt to move it aside" ;;
		esac
	elif [ "$now" -gt "$incoming" ]; then
		result "$1" stale "$now" "$now" "generation $now is newer"
	elif [ "$now" = "$incoming" ]; then
		old_serial=''
		read -r old_serial <"$root/$1/$now/serial"
		if [ "$old_serial" = "$new_serial" ]; then
			result "$1" unchanged "$now" "$now"
		else
			result "$1" stale "$now" "$now" "generation $now is here already with another serial"
		fi
	else
		plan="$plan${plan:+,}$1:$incoming:$now:"
	fi
}

# Moves a generation to its name. Nothing uses it yet; what is adopted waits until its place is free.
move_in() {
	take_apart "$1"
	[ -z "$aside" ] || return 0
	if [ -e "$root/$app" ]; then
		discard "$root/$app/$target" && mv -f -T "$work/new/$app/$target" "$root/$app/$target"
	else
		mv -f -T "$work/new/$app" "$root/$app"
	fi
}

# ---------------------------------------------------------------------------------------------- switching

refuse() {
	take_apart "$1"
	result "$app" failed "$previous" "$previous" "$message_quoted"
	[ "$mode" != install ] || [ -n "$aside" ] || discard "$root/$app/$target"
}

broken() {
	take_apart "$1"
	result "$app" broken-before "$previous" "$previous" "$message_quoted"
}

# Removes what is older than the newest few, but never the current and the previous generation.
prune() {
	set -- "$root/$1"/[1-9]*
	[ $# -gt "$kept" ] || return 0
	for directory; do printf '%s\n' "${directory##*/}"; done | sort -rn >"$work/generations"
	position=0
	while read -r generation; do
		position=$((position + 1))
		[ "$position" -gt "$kept" ] || continue
		[ "$generation" != "$target" ] && [ "$generation" != "$previous" ] && number "$generation" || continue
		discard "$root/$app/$generation"
	done <"$work/generations"
}

succeed() {
	take_apart "$1"
	if [ "$mode" = install ]; then
		result "$app" installed "$target" "$previous"
		prune "$app"
	else
		result "$app" rolled-back "$target" "$previous"
	fi
}

# Splits a list in two: half, other.
halve() {
	IFS=,
	# shellcheck disable=SC2086 # split at the commas; the names hold no wildcard
	set -- $1
	unset IFS
	middle=$(($# / 2)) half='' other=''
	for entry; do
		if [ "$middle" -gt 0 ]; then half="$half${half:+,}$entry"; else other="$other${other:+,}$entry"; fi
		middle=$((middle - 1))
	done
}

keep_output() {
	message_quoted=$(quote <"$work/output")
	[ -n "$message_quoted" ] || message_quoted='it failed without a word'
}

# Switches what the plan names. A group that the test refuses is put back and tried again by halves, until the
# ones that are to blame stand alone.
switch() {
	groups=$plan
	while [ -n "$groups" ]; do
		group=${groups%% *}
		groups=${groups#"$group"} groups=${groups# }
		: >"$work/output"
		if each forward "$group" && run "$test"; then
			live="$live,$group"
			continue
		fi
		keep_output
		each back "$group" || die "$root cannot be written to; what is half done there is put right by the next run"
		case $group in
		*,*)
			halve "$group"
			groups="$half $other${groups:+ }$groups"
			;;
		*) refuse "$group" ;;
		esac
	done
	live=${live#,}
}

# The journal first, then the switch, the reload, and only then the journal's end.
carry_out() {
	[ -n "$plan" ] || return 0
	printf '%s\n' "$plan" >"$work/pending" && mv -f -T "$work/pending" "$root/.pending" ||
		die "$root cannot be written to; is the disk full?"
	switch
	if [ -z "$live" ]; then
		rm -f "$root/.pending"
	elif reload_server; then
		rm -f "$root/.pending"
		each succeed "$live"
	else
		keep_output
		each back "$live" || die "$root cannot be written to; what is half done there is put right by the next run"
		! reload_server || rm -f "$root/.pending"
		each refuse "$live"
	fi
}

install() {
	unpack
	time=$(date -u +%Y%m%dT%H%M%SZ)
	for directory in "$work"/new/*; do
		[ -d "$directory" ] || die "the archive is empty"
		decide "${directory##*/}"
	done
	[ -n "$plan" ] || return 0
	if ! run "$test"; then
		keep_output
		each broken "$plan"
		return
	fi
	# Onto the disk before anything points to it: a power cut must not leave empty files in use.
	find "$work/new" -type f -exec sync {} + 2>/dev/null
	each move_in "$plan" || die "the files cannot be moved into place in $root; is the disk full?"
	carry_out
}

rollback() {
	for wanted; do
		app=${wanted%%:*} target=${wanted#*:}
		app_name "$app" && { [ "$target" = 0 ] || number "$target"; } || die "not APP:GENERATION: $wanted"
		look "$app"
		if [ "$state" = foreign ]; then
			result "$app" foreign 0 0 "$root/$app was not put there by certfleet"
		elif [ "$now" = "$target" ]; then
			result "$app" unchanged "$now" "$now"
		elif [ "$target" != 0 ] && ! whole "$root/$app/$target"; then
			result "$app" failed "$now" "$now" "generation $target is not here any more"
		else
			plan="$plan${plan:+,}$app:$target:$now:"
		fi
	done
	carry_out
}

status() {
	for directory in "$root"/*; do
		app=${directory##*/}
		app_name "$app" || continue
		look "$app"
		[ "$state" != new ] || continue
		if [ "$state" = ours ]; then
			state=empty
			[ "$now" = 0 ] || state=current
		fi
		result "$app" "$state" "$now" 0
	done
}

# ---------------------------------------------------------------------------------------------- the run

mode=${1:-}
case $mode in
install | rollback | status) shift ;;
*) die "usage: receiver.sh install|rollback|status --root DIR ..." ;;
esac
while [ $# -gt 0 ]; do
	case $1 in
	--root | --test | --reload | --adopt)
		[ $# -ge 2 ] || die "$1 needs a value"
		case $1 in
		--root) root=${2%/} ;;
		--test) test=$2 ;;
		--reload) reload=$2 ;;
		--adopt) adopt="$adopt$2 " ;;
		esac
		shift 2
		;;
	-*) die "unknown option: $1" ;;
	*) break ;;
	esac
done
case $root in
*[!A-Za-z0-9._/-]*) root='' && die "--root may hold letters, digits and ._-/ only" ;;
/*) ;;
*) root='' && die "--root has to be an absolute path" ;;
esac
if [ "$mode" = status ]; then
	status
	finish
fi
[ -n "$test" ] && [ -n "$reload" ] || die "--test and --reload are needed"
[ -d "$root" ] || mkdir -p "$root" 2>/dev/null || [ -d "$root" ] || die "$root cannot be made; look at its permissions"
[ -w "$root" ] || die "$root cannot be written to; look at its permissions"
work=$root/.incoming.$$
lock
recover
case $mode in
install) install ;;
rollback) rollback "$@" ;;
esac
finish
