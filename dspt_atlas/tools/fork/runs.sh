# Sourced by the scripts next to it: runs of the fork's train.py, each once, in folders that name their KEY VALUE pairs.

# pairs_name [KEY VALUE ...]: sets `name` to the pairs' part of a folder's name, "" without pairs.
pairs_name() {
    if [ $(($# % 2)) -ne 0 ]; then
        echo "$0: expected KEY VALUE pairs at the end, got an odd number: $*" >&2
        exit 2
    fi
    name=""
    while [ $# -gt 0 ]; do
        name+="_$1=$2"
        shift 2
    done
    name=${name//[^A-Za-z0-9._=,+-]/_}
    if [ ${#name} -gt 120 ]; then
        name="${name:0:100}_$(printf %s "$name" | cksum | cut -d ' ' -f 1)"
    fi
}

# run FOLDER MODEL_DIR DATASET TRAINER SEED [KEY VALUE ...]: train, or test the model in MODEL_DIR unless that is "".
# DATASET and $config name yamls. Names of folders may collide: command.txt distinguishes runs, also after a yaml changed.
run() {
    local folder=$1 model_dir=$2 dataset_file="configs/datasets/$3.yaml" config_file="configs/trainers/$config.yaml"
    local options=(--trainer "$4" --seed "$5") command file
    shift 5
    for file in "$dataset_file" "$config_file"; do
        if [ ! -f "$file" ]; then
            echo "$0: there is no $file here; there are: $(ls "${file%/*}" 2>/dev/null | tr '\n' ' ')" >&2
            exit 2
        fi
    done
    command="${options[*]} $* $(cksum "$dataset_file" "$config_file")"
    if [ -n "$(ls -A "$folder" 2>/dev/null)" ] && [ "$(cat "$folder/command.txt" 2>/dev/null)" != "$command" ]; then
        echo "$0: $folder holds a run with other arguments or configurations, which its command.txt names, or one" \
            "of an older script: choose another OUTPUT, or remove that folder" >&2
        exit 2
    fi
    local tested=trained
    if [ -n "$model_dir" ]; then
        tested=$(cat "$model_dir"/*/model* | cksum)
        options+=(--eval-only --model-dir "$model_dir")
        if [ -z "$(find "$model_dir" -name model-best.pth.tar)" ]; then
            options+=(--load-epoch "$(cat "$model_dir"/*/checkpoint | sed 's/.*-//' | head -n 1)")
        fi
    fi
    if [ "$(cat "$folder/done" 2>/dev/null)" = "$tested" ]; then
        echo "Finished already: $folder"
        return
    fi
    mkdir -p "$folder"
    printf '%s\n' "$command" > "$folder/command.txt"
    keep_log "$folder"
    "${PYTHON:-python}" train.py --root "$DATA" --output-dir "$folder" --dataset-config-file "$dataset_file" \
        --config-file "$config_file" "${options[@]}" "$@"
    if [ -n "${expected:-}" ] && ! grep -q "$expected" "$folder/log.txt"; then
        echo "$0: $folder/log.txt has no line '$expected': this run was trained without it" >&2
        exit 1
    fi
    printf '%s\n' "$tested" > "$folder/done"
}

# keep_log FOLDER: rename the log of an earlier start, because Dassl would give the next log another name.
keep_log() {
    local number=1
    [ -e "$1/log.txt" ] || return 0
    while [ -e "$1/log.$number.txt" ]; do number=$((number + 1)); done
    mv "$1/log.txt" "$1/log.$number.txt"
}
