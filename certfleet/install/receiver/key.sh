# ---------------------------------------------------------------------------------------------- keys made here

# Keys that never leave this host. What leaves is a request for a certificate (PKCS #10, RFC 2986); asked for again for
# the same order, it is of the same key. The key waits until its certificate comes, which does so without one.
#
# DIR/.keys/APP/ORDER.TYPE  a key that waits; complete from the moment it has this name

made_here() {
	case $made in *" $1 "*) ;; *) return 1 ;; esac
}

need_openssl() {
	command -v openssl >/dev/null 2>&1 || die "openssl is not installed here: $1"
}

# Whether certificate $1 and key $2 have the same public key.
fits() {
	public=$(openssl x509 -noout -pubkey -in "$1" 2>/dev/null </dev/null) && [ -n "$public" ] &&
		[ "$public" = "$(openssl pkey -pubout -passin pass: -in "$2" 2>/dev/null </dev/null)" ]
}

# Makes a key and keeps it: whole, and on the disk, before it has its name. $1: its type.
make_key() {
	case $1 in
	p256 | p384) set -- EC -pkeyopt "ec_paramgen_curve:P-${1#p}" -pkeyopt ec_param_enc:named_curve ;;
	*) set -- RSA -pkeyopt "rsa_keygen_bits:${1#rsa}" ;;
	esac
	mkdir -p "$root/.keys/$app" 2>"$work/output" &&
		openssl genpkey -algorithm "$@" -out "$work/key" >"$work/output" 2>&1 </dev/null || return 1
	sync "$work/key" 2>/dev/null
	mv -f -T "$work/key" "$waiting" 2>"$work/output" || return 1
	sync "$root/.keys/$app" 2>/dev/null
	return 0
}

# For openssl: every name, and in `common` the first that fits as common name (64 characters, RFC 5280, appendix A; no
# address, RFC 8738, section 3).
describe() {
	common='' count=0
	printf '[req]\nprompt=no\nstring_mask=utf8only\ndistinguished_name=subject\nreq_extensions=extensions\n[subject]\n[extensions]\nsubjectAltName=@names\n[names]\n'
	for name; do
		count=$((count + 1)) kind=DNS
		case $name in
		*:*) kind=IP ;;
		*[!0-9.]*) [ -n "$common" ] || [ ${#name} -gt 64 ] || common=$name ;;
		*) kind=IP ;;
		esac
		printf '%s.%d=%s\n' "$kind" "$count" "$name"
	done
}

# One app's request, for the order, type and names that were read.
answer_request() {
	waiting=$root/.keys/$app/$order.$type
	if [ ! -s "$waiting" ] && ! make_key "$type"; then
		keep_output
		result "$app" failed 0 0 "the key could not be made: $message_quoted"
		return
	fi
	describe "$@" >"$work/request"
	csr=$(openssl req -new -sha256 -config "$work/request" -subj "/${common:+CN=}$common" -key "$waiting" 2>"$work/output" </dev/null |
		sed '/^-----/d' | tr -d '\n')
	if [ -n "$csr" ]; then
		results="$results${results:+,}\"$app\":{\"state\":\"requested\",\"generation\":0,\"csr\":\"$csr\"}"
	else
		keep_output
		result "$app" failed 0 0 "openssl does not take the key $waiting: $message_quoted"
	fi
}

key_type() {
	case $1 in p256 | p384 | rsa2048 | rsa3072 | rsa4096) ;; *) return 1 ;; esac
}

# Lines APP ORDER TYPE NAME... on standard input.
request() {
	take_lines
	need_openssl "it makes the keys"
	# A wildcard among the names is no pattern.
	set -f
	while read -r app order type names; do
		app_name "$app" && hexadecimal "$order" && key_type "$type" && [ -n "$names" ] || die "what came in is not APP ORDER TYPE NAME..."
		for name in $names; do host_name "${name#\*.}" || die "what came in is not a name of $app"; done
	done <"$work/lines"
	while read -r app order type names; do
		# shellcheck disable=SC2086 # several names
		answer_request $names
	done <"$work/lines"
	set +f
}

# Puts the key that was made here beside the certificate that came in; it waits, or is in use with it already.
bring_key() {
	need_openssl "it tells which key belongs to a certificate"
	set -- "$1" "$work/new/$1"/*
	[ $# = 2 ] || die "the archive holds two generations of $1"
	[ ! -e "$2/privkey.pem" ] || die "the archive holds a key for $1, whose key is made here"
	for key in "$root/.keys/$1"/* "$root/$1"/[1-9]*/privkey.pem; do
		[ -f "$key" ] && fits "$2/fullchain.pem" "$key" || continue
		cat "$key" >"$2/privkey.pem" || die "$root cannot be written to; is the disk full?"
		return
	done
	return 1
}

# Generation $2 of app $1 is in place: its key waits no longer, nor does one that is older.
drop_keys() {
	made_here "$1" || return 0
	for key in "$root/.keys/$1"/*; do
		cmp -s "$key" "$root/$1/$2/privkey.pem" || continue
		for other in "$root/.keys/$1"/*; do
			# Of the same second: not known to be older.
			[ -z "$(find "$key" -newer "$other")" ] || rm -f "$other"
		done
		rm -f "$key"
		rmdir "$root/.keys/$1" 2>/dev/null
		return
	done
	return 0
}

# No certificate comes so late: whoever wanted one has forgotten it.
drop_old_keys() {
	[ ! -d "$root/.keys" ] || find "$root/.keys" -type f -mtime +400 -exec rm -f {} +
}
