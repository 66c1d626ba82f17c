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
		holder=$(readlink "$root/.lock.owner") || holder=''
		if [ -n "$holder" ] && ! alive "$holder" && mv -f -T "$root/.lock.owner" "$root/.lock.dead.$$" 2>/dev/null; then
			# Somebody may have been quicker, and this may be their lock.
			[ "$(readlink "$root/.lock.dead.$$")" = "$holder" ] || mv -f -T "$root/.lock.dead.$$" "$root/.lock.owner"
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
