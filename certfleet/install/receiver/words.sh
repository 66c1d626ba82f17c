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
