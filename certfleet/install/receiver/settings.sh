# ---------------------------------------------------------------------------------------------- how this host is set up

# A directory or file: absolute, of characters that no web server's file and no shell reads in another way.
absolute() {
	case $2 in
	*[!A-Za-z0-9._/-]*) die "$1 may hold letters, digits and ._-/ only" ;;
	*/../* | */..) die "$1 may not lead upwards" ;;
	/*) ;;
	*) die "$1 has to be an absolute path" ;;
	esac
}

# Where `files` shows something: absolute, with {app} for the app's name.
any_app='{app}'
place_of_apps() {
	case $2 in
	*"$any_app"*"$any_app"*) die "$1 may hold $any_app once" ;;
	*"$any_app"*) absolute "$1" "${2%%"$any_app"*}app${2#*"$any_app"}" ;;
	*) absolute "$1" "$2" ;;
	esac
	case $2 in */) die "$1 has to be a file" ;; esac
}

# One setting: its name and value, from an option or from a line of the host's configuration. Nothing else is known.
setting() {
	case $1 in
	root) absolute "$1" "$2" && root=${2%/} ;;
	test) test=$2 ;;
	reload) reload=$2 ;;
	server)
		case $2 in
		nginx | apache | haproxy | files) server=$2 ;;
		*) die "server has to be nginx, apache, haproxy or files" ;;
		esac
		;;
	webroot) absolute "$1" "$2" && webroot=${2%/} ;;
	fullchain) place_of_apps "$1" "$2" && fullchain_place=$2 ;;
	key) place_of_apps "$1" "$2" && key_place=$2 ;;
	chain) place_of_apps "$1" "$2" && chain_place=$2 ;;
	combined) place_of_apps "$1" "$2" && combined_place=$2 ;;
	owner)
		case $2 in
		-* | :* | *: | *:*:* | *[!A-Za-z0-9_.:-]*) die "owner has to be USER or USER:GROUP" ;;
		*) owner=$2 ;;
		esac
		;;
	file-mode)
		case $2 in
		0[46][046][04]) file_mode=$2 ;;
		*) die "file-mode has to be such as 0644" ;;
		esac
		;;
	key-mode)
		case $2 in
		0[46][046]0) key_mode=$2 ;;
		*) die "key-mode has to be such as 0640, with nothing for others" ;;
		esac
		;;
	*) return 1 ;;
	esac
}
