(** Products K v, inverses, and quadratic forms along a line. Nothing about learning. *)

From Coq Require Import Reals Lra Lia Arith.
From KernelSGD Require Import Definitions.
Open Scope R_scope.

(** K v. *)
Definition product (m : nat) (K : matrix) (v : vector) : vector := fun k => Σ l < m, K k l * v l.

Lemma quadratic_form_product m K v : quadratic_form m K v = (Σ k < m, v k * product m K v k).
Proof.
  unfold quadratic_form, product. apply sum_ext; intros k _. rewrite <- sum_scale. apply sum_ext; intros; ring.
Qed.

Lemma product_symmetric m K v w :
  symmetric m K -> (Σ k < m, v k * product m K w k) = (Σ k < m, w k * product m K v k).
Proof.
  intros same. unfold product.
  rewrite (sum_ext m (fun k => v k * (Σ l < m, K k l * w l)) (fun k => Σ l < m, v k * (K k l * w l)))
    by (intros; symmetry; apply sum_scale).
  rewrite sum_swap. apply sum_ext; intros l column. rewrite <- sum_scale. apply sum_ext; intros k row.
  rewrite (same k l) by assumption. ring.
Qed.

Lemma quadratic_form_line m K v w t :
  symmetric m K ->
  quadratic_form m K (fun k => v k + t * w k)
  = quadratic_form m K v + 2 * t * (Σ k < m, w k * product m K v k) + t * t * quadratic_form m K w.
Proof.
  intros same. rewrite !quadratic_form_product.
  rewrite (sum_ext m (fun k => (v k + t * w k) * product m K (fun k => v k + t * w k) k)
             (fun k => v k * product m K v k + t * (v k * product m K w k)
                       + (t * (w k * product m K v k) + t * t * (w k * product m K w k)))).
  - rewrite !sum_plus, !sum_scale, (product_symmetric m K v w) by assumption. ring.
  - intros k _.
    replace (product m K (fun k => v k + t * w k) k) with (product m K v k + t * product m K w k); [ring|].
    unfold product. rewrite <- sum_scale, <- sum_plus. apply sum_ext; intros; ring.
Qed.

(** v, and zeros beyond index k. *)
Definition padded (k : nat) (v : vector) : vector := fun a => if (a <? k)%nat then v a else 0.

Lemma padded_inside k v a : (a < k)%nat -> padded k v a = v a.
Proof. intros inside. unfold padded. apply Nat.ltb_lt in inside. rewrite inside. reflexivity. Qed.

Lemma padded_outside k v a : (k <= a)%nat -> padded k v a = 0.
Proof. intros outside. unfold padded. apply Nat.ltb_ge in outside. rewrite outside. reflexivity. Qed.

Lemma sum_padded k m v u : (k <= m)%nat -> (Σ a < m, u a * padded k v a) = (Σ a < k, u a * v a).
Proof.
  intros shorter. rewrite (sum_vanishing_tail k m) by (try assumption; intros; rewrite padded_outside by lia; ring).
  apply sum_ext; intros. rewrite padded_inside by assumption. reflexivity.
Qed.

(** H (X v) = v. *)
Lemma product_inverse m H X v a : inverse m H X -> (a < m)%nat -> product m H (product m X v) a = v a.
Proof.
  intros identity row. unfold product.
  rewrite (sum_ext m _ (fun l => Σ b < m, H a l * X l b * v b))
    by (intros l _; rewrite <- sum_scale; apply sum_ext; intros; ring).
  rewrite sum_swap, (sum_ext m _ (fun b => one_hot a b * v b)).
  - apply (sum_one_hot m a v). assumption.
  - intros b column. rewrite (sum_scale_right (v b) m (fun l => H a l * X l b)), identity by assumption. reflexivity.
Qed.
