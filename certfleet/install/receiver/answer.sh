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
	printf '{"version":1,"reloads":%d,"pending":%s,"apps":{%s},"error":%s,"release":"%s"}\n' "$reloads" "$pending" "$results" "$message" "$release"
	[ -z "$error" ]
	exit
}

die() {
	error=$1 results=''
	finish
}
