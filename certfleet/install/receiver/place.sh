# ---------------------------------------------------------------------------------------------- where servers look

# Some servers take what they are shown in places of their own: symlinks through APP/current, which are made once,
# so that one rename switches key and chain together, as for everybody else.

# Runs a function as `$1 PATH FILE` for each place of app $2; stops at the first that fails.
places() {
	case $server in
	haproxy) "$1" "$root/haproxy.d/$2.pem" "$2" combined.pem ;;
	files)
		place "$1" "$fullchain_place" "$2" fullchain.pem && place "$1" "$chain_place" "$2" chain.pem &&
			place "$1" "$combined_place" "$2" combined.pem && place "$1" "$key_place" "$2" privkey.pem
		;;
	esac
}

place() {
	case $2 in
	'') ;;
	*"$any_app"*) "$1" "${2%%"$any_app"*}$3${2#*"$any_app"}" "$3" "$4" ;;
	*) "$1" "$2" "$3" "$4" ;;
	esac
}

shown() {
	[ -L "$1" ] && [ "$(readlink "$1")" = "$root/$2/current/$3" ]
}

# Nothing is there, or what we put there; else `stranger` has the path.
untaken() {
	if [ -e "$1" ] || [ -L "$1" ]; then
		shown "$@" || {
			stranger=$1
			return 1
		}
	fi
}

adopted() {
	case $adopt in *" $1 "*) ;; *) return 1 ;; esac
}

# What is adopted waits beside its place, under a name that haproxy passes over.
beside() {
	printf '%s' "${1%/*}/.${1##*/}.before-certfleet"
}

show() {
	! shown "$@" || return 0
	if ! untaken "$@"; then
		kept_aside=$(beside "$1")
		if ! adopted "$2" || [ -e "$kept_aside" ] || [ -L "$kept_aside" ]; then
			echo "$1 was not put there by certfleet for $2" >"$work/output"
			return 1
		fi
		mv -f -T "$1" "$kept_aside" || return 1
	fi
	link=${1%/*}/.${1##*/}.certfleet
	rm -f "$link" 2>/dev/null
	{ ln -sn "$root/$2/current/$3" "$link" && mv -f -T "$link" "$1"; } 2>/dev/null && return
	echo "$1 cannot be made; look whether its directory is there and may be written to" >"$work/output"
	return 1
}

hide() {
	! shown "$@" || rm -f "$1" || return 1
	kept_aside=$(beside "$1")
	if [ ! -e "$1" ] && [ ! -L "$1" ] && { [ -e "$kept_aside" ] || [ -L "$kept_aside" ]; }; then
		mv -f -T "$kept_aside" "$1"
	fi
}

# The file with everything in it, made here: nothing else can be in it than chain and key.
combine() {
	case $server in
	haproxy) ;;
	files) [ -n "$combined_place" ] || return 0 ;;
	*) return 0 ;;
	esac
	{ cat "$1/fullchain.pem" && echo && cat "$1/privkey.pem"; } >"$1/combined.pem" || die "$root cannot be written to; is the disk full?"
}

# Owner and modes that were asked for, while nobody can come near yet. $1: the app, its generation in `incoming`.
dress() {
	[ "$server" = files ] && [ -n "$owner$file_mode$key_mode" ] || return 0
	bare=$work/new/$1/$incoming
	chmod "${file_mode:-0600}" "$bare"/* && chmod "${key_mode:-0600}" "$bare/privkey.pem" || die "modes cannot be set in $root"
	[ ! -e "$bare/combined.pem" ] || chmod "${key_mode:-0600}" "$bare/combined.pem" || die "modes cannot be set in $root"
	[ -z "$owner" ] || chown "$owner" "$bare"/* 2>/dev/null || die "files cannot be given to $owner; is there such a user, and may we?"
	# Who owns a file has to get there.
	chmod 711 "$work/new/$1" "$bare" && chmod go+x "$root" || die "modes cannot be set in $root"
	[ ! -f "$root/$1/.certfleet" ] || chmod go+x "$root/$1" || die "modes cannot be set in $root"
}

# Whether key and certificate belong together, where the server's own test does not look: Apache would find out
# during the reload, and end.
belong() {
	case $server in apache | files) ;; *) return 0 ;; esac
	need_openssl "the test of $server does not compare key and certificate, so we do"
	set -- "$work/new/$1/$incoming"
	fits "$1/fullchain.pem" "$1/privkey.pem"
}

# What the server's configuration names has to be there before the first certificate is.
prepare() {
	[ "$server" = haproxy ] || return 0
	mkdir -p "$root/haproxy.d" "$root/challenges.d" && : >>"$root/challenges.d/haproxy.map" || die "$root cannot be written to; is the disk full?"
	# What leads to nothing serves nobody, and haproxy would not start with it.
	for file in "$root"/haproxy.d/*.pem; do
		[ -e "$file" ] || [ ! -L "$file" ] || rm -f "$file"
	done
}
