package audit

import "golang.org/x/mod/sumdb/note"

// WitnessKeyName is the note key name of a witness: somebody outside of the
// regions who counter-signs what they have counter-signed.
func WitnessKeyName(tenant, witness string) string {
	return "holdfast/" + tenant + "/witness/" + witness
}

// Witness verifies a receipt's signatures, of its node and of those regions that
// are given, and adds the witness's. Other signatures are dropped.
func Witness(msg []byte, node note.Verifier, regions []note.Verifier, witness note.Signer) ([]byte, error) {
	_, n, err := openNote(msg, node, regions...)
	if err != nil {
		return nil, err
	}
	n.UnverifiedSigs = nil
	return note.Sign(n, witness)
}
