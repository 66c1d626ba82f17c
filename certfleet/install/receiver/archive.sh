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
	case $server:${1##*/} in
	*:fullchain.pem | *:cert.pem | *:chain.pem | *:privkey.pem | *:serial) ;;
	nginx:nginx.conf | nginx:nginx-ipv6.conf | apache:apache.conf) ;;
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
		member "$name" || die "the archive holds an unexpected name for $server: $name"
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

# What the web server will include says where to listen and which files to use, and nothing else: the sender may
# install certificates, not rewrite the site.
fragment() {
	while IFS= read -r line; do
		case $server:$line in
		"nginx:ssl_certificate $root/$1/current/fullchain.pem;") ;;
		"nginx:ssl_certificate_key $root/$1/current/privkey.pem;") ;;
		nginx:listen\ *\ ssl\;)
			line=${line#listen } line=${line% ssl;}
			case $line in *[!][0-9a-f.:]*) die "the archive holds an unexpected nginx line for $1: listen $line" ;; esac
			;;
		"apache:SSLEngine on") ;;
		"apache:SSLCertificateFile $root/$1/current/fullchain.pem") ;;
		"apache:SSLCertificateKeyFile $root/$1/current/privkey.pem") ;;
		*) die "the archive holds an unexpected $server line for $1: $line" ;;
		esac
	done <"$2"
	[ -z "$line" ] || die "the archive holds a $server line without an end for $1: $line"
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
	for file in cert.pem chain.pem; do
		[ -f "$2/$file" ] || die "the archive lacks $file for $1"
	done
	case $server in
	nginx | apache)
		[ -f "$2/$server.conf" ] || die "the archive lacks $server.conf for $1"
		for file in "$2/$server"*.conf; do fragment "$1" "$file"; done
		;;
	esac
	read -r new_serial <"$2/serial" || new_serial=''
	hexadecimal "$new_serial" || die "the archive lacks the serial of $1"
	combine "$2"
	: >"$work/new/$1/.certfleet"
}

# Whether the web server is to be reloaded even if nothing is new.
asked_again() {
	case $again in *" $1 "*) ;; *) return 1 ;; esac
}

# Whether the generation in use has the files that came in, with what is in them, and no others.
same() {
	for file in "$work/new/$1/$now"/* "$root/$1/$now"/*; do
		cmp -s "$work/new/$1/$now/${file##*/}" "$root/$1/$now/${file##*/}" || return 1
	done
}

# What to do about one app that came in: an entry in the plan, or its result at once.
decide() {
	if made_here "$1" && ! bring_key "$1"; then
		look "$1"
		result "$1" key-lost "$now" "$now" "the key that was made here for its certificate is not here any more"
		return
	fi
	inspect "$1"
	look "$1"
	dress "$1"
	if ! belong "$1"; then
		result "$1" failed "$now" "$now" "its key and its certificate do not belong together"
	elif [ "$state" = foreign ]; then
		if adopted "$1"; then
			plan="$plan${plan:+,}$1:$incoming:0:$1.before-certfleet.$time"
		else
			result "$1" foreign 0 0 "$root/$1 was not put there by certfleet; use --adopt to move it aside"
		fi
	elif ! places untaken "$1" && ! adopted "$1"; then
		result "$1" foreign "$now" "$now" "$stranger was not put there by certfleet; use --adopt to move it aside"
	elif [ "$now" -gt "$incoming" ]; then
		result "$1" stale "$now" "$now" "generation $now is newer"
	elif [ "$now" = "$incoming" ]; then
		old_serial=''
		read -r old_serial <"$root/$1/$now/serial"
		if [ "$old_serial" != "$new_serial" ]; then
			result "$1" stale "$now" "$now" "generation $now is here already with another serial"
		elif asked_again "$1" || ! same "$1" || ! places shown "$1"; then
			plan="$plan${plan:+,}$1:$incoming:$now:"
		else
			drop_keys "$1" "$now"
			result "$1" unchanged "$now" "$now"
		fi
	else
		plan="$plan${plan:+,}$1:$incoming:$now:"
	fi
}

# Moves a generation to its name. Nothing uses it yet; what is adopted or put right waits until its place is free.
move_in() {
	take_apart "$1"
	[ -z "$aside" ] && [ "$target" != "$previous" ] && [ -e "$work/new/$app/$target" ] || return 0
	if [ -e "$root/$app" ]; then
		discard "$root/$app/$target" && mv -f -T "$work/new/$app/$target" "$root/$app/$target"
	else
		mv -f -T "$work/new/$app" "$root/$app"
	fi
}
