(** Finite sums of real numbers: what the other files need, and nothing about learning.

    [Σ k < n, e] is e(0) + … + e(n − 1). The body reaches as far as a product does: [Σ k < n, a k * b k + c] is
    [(Σ k < n, a k * b k) + c]. *)

From Coq Require Import Reals Lra Lia Arith.
Open Scope R_scope.

Fixpoint sum (n : nat) (u : nat -> R) : R :=
  match n with
  | O => 0
  | S k => sum k u + u k
  end.

Notation "'Σ' k < n , e" := (sum n (fun k => e))
  (at level 45, k name, n at level 30, e at level 45, format "'Σ'  k  <  n ,  e").

Lemma sum_ext n u v : (forall k, (k < n)%nat -> u k = v k) -> sum n u = sum n v.
Proof.
  induction n as [|n IH]; simpl; intros same; [reflexivity|].
  rewrite IH by (intros; apply same; lia). rewrite same by lia. reflexivity.
Qed.

Lemma sum_plus n u v : (Σ k < n, (u k + v k)) = sum n u + sum n v.
Proof. induction n as [|n IH]; simpl; [|rewrite IH]; ring. Qed.

Lemma sum_minus n u v : (Σ k < n, (u k - v k)) = sum n u - sum n v.
Proof. induction n as [|n IH]; simpl; [|rewrite IH]; ring. Qed.

Lemma sum_scale c n u : (Σ k < n, c * u k) = c * sum n u.
Proof. induction n as [|n IH]; simpl; [|rewrite IH]; ring. Qed.

Lemma sum_scale_right c n u : (Σ k < n, u k * c) = sum n u * c.
Proof. induction n as [|n IH]; simpl; [|rewrite IH]; ring. Qed.

Lemma sum_constant c n : (Σ k < n, c) = INR n * c.
Proof. induction n as [|n IH]; [simpl; ring|]. rewrite S_INR. simpl. rewrite IH. ring. Qed.

Lemma sum_zero n u : (forall k, (k < n)%nat -> u k = 0) -> sum n u = 0.
Proof.
  intros vanishes. rewrite (sum_ext n u (fun _ => 0)) by assumption. rewrite sum_constant. ring.
Qed.

Lemma sum_swap n m (u : nat -> nat -> R) : (Σ k < n, Σ l < m, u k l) = (Σ l < m, Σ k < n, u k l).
Proof.
  induction n as [|n IH]; simpl.
  - symmetry. apply sum_zero. reflexivity.
  - rewrite IH. symmetry. apply sum_plus.
Qed.

Lemma sum_le n u v : (forall k, (k < n)%nat -> u k <= v k) -> sum n u <= sum n v.
Proof.
  induction n as [|n IH]; simpl; intros below; [lra|].
  apply Rplus_le_compat; [apply IH; intros|]; apply below; lia.
Qed.

Lemma sum_lt n u v :
  (forall k, (k < n)%nat -> u k <= v k) -> (exists k, (k < n)%nat /\ u k < v k) -> sum n u < sum n v.
Proof.
  intros below [k [inside strict]]. induction n as [|n IH]; [lia|]. simpl.
  destruct (Nat.eq_dec k n) as [->|other].
  - apply Rplus_le_lt_compat; [apply sum_le; intros; apply below; lia|assumption].
  - apply Rplus_lt_le_compat; [apply IH; [intros; apply below; lia|lia]|apply below; lia].
Qed.

Lemma sum_nonneg n u : (forall k, (k < n)%nat -> 0 <= u k) -> 0 <= sum n u.
Proof.
  intros nonneg. apply Rle_trans with (Σ k < n, 0); [rewrite sum_constant; lra|].
  apply sum_le. assumption.
Qed.

Lemma sum_pos n u : (0 < n)%nat -> (forall k, 0 < u k) -> 0 < sum n u.
Proof.
  intros some pos. apply Rle_lt_trans with (Σ k < n, 0); [rewrite sum_constant; lra|].
  apply sum_lt; [intros k _; specialize (pos k); lra|exists 0%nat; split; [assumption|apply pos]].
Qed.

(** A term is no larger than a sum of terms that are not negative. *)
Lemma term_le_sum n u k : (k < n)%nat -> (forall l, (l < n)%nat -> 0 <= u l) -> u k <= sum n u.
Proof.
  intros inside nonneg. induction n as [|n IH]; [lia|]. simpl.
  assert (0 <= sum n u) by (apply sum_nonneg; intros; apply nonneg; lia).
  destruct (Nat.eq_dec k n) as [->|other]; [lra|].
  assert (u k <= sum n u) by (apply IH; [lia|intros; apply nonneg; lia]).
  assert (0 <= u n) by (apply nonneg; lia). lra.
Qed.

(** Terms that vanish from index k on can be left out. *)
Lemma sum_vanishing_tail k n u :
  (k <= n)%nat -> (forall l, (k <= l < n)%nat -> u l = 0) -> sum n u = sum k u.
Proof.
  intros shorter vanishes. induction n as [|n IH].
  - replace k with 0%nat by lia. reflexivity.
  - destruct (Nat.eq_dec k (S n)) as [->|other]; [reflexivity|]. simpl.
    rewrite IH by (try lia; intros; apply vanishes; lia). rewrite vanishes by lia. ring.
Qed.

(** (Σ u)(Σ v) as a double sum. *)
Lemma sum_product n m u v : sum n u * sum m v = (Σ k < n, Σ l < m, u k * v l).
Proof.
  rewrite <- sum_scale_right. apply sum_ext; intros k _. rewrite sum_scale. reflexivity.
Qed.

(** 1 where the indices agree, else 0: the identity matrix, and the label vector e_i. *)
Definition one_hot (i j : nat) : R := if Nat.eqb i j then 1 else 0.

Lemma one_hot_same i : one_hot i i = 1.
Proof. unfold one_hot. rewrite Nat.eqb_refl. reflexivity. Qed.

Lemma one_hot_other i j : i <> j -> one_hot i j = 0.
Proof. intros differ. unfold one_hot. apply Nat.eqb_neq in differ. rewrite differ. reflexivity. Qed.

Lemma one_hot_symmetric i j : one_hot i j = one_hot j i.
Proof. unfold one_hot. rewrite Nat.eqb_sym. reflexivity. Qed.

(** A sum against e_i picks the i-th term. *)
Lemma sum_one_hot n i u : (i < n)%nat -> (Σ j < n, one_hot i j * u j) = u i.
Proof.
  induction n as [|n IH]; [lia|]. intros inside. simpl.
  destruct (Nat.eq_dec i n) as [->|other].
  - rewrite one_hot_same, sum_zero; [ring|].
    intros j before. rewrite one_hot_other by lia. ring.
  - rewrite one_hot_other, IH by lia. ring.
Qed.

(** Sums are differentiated term by term. *)
Lemma derivable_sum n (u : nat -> R -> R) (u' : nat -> R) t :
  (forall k, (k < n)%nat -> derivable_pt_lim (u k) t (u' k)) ->
  derivable_pt_lim (fun s => Σ k < n, u k s) t (sum n u').
Proof.
  induction n as [|n IH]; simpl; intros each.
  - apply derivable_pt_lim_const.
  - apply (derivable_pt_lim_plus (fun s => Σ k < n, u k s) (u n)).
    + apply IH. intros; apply each; lia.
    + apply each. lia.
Qed.

(** Cauchy–Schwarz: ⟨u, v⟩² ≤ ‖u‖²‖v‖². *)
Lemma cauchy_schwarz n u v :
  (Σ k < n, u k * v k) * (Σ k < n, u k * v k) <= (Σ k < n, u k * u k) * (Σ k < n, v k * v k).
Proof.
  rewrite !sum_product.
  (* twice the difference is Σ Σ (u_k v_l − u_l v_k)² *)
  assert (mirror : (Σ k < n, Σ l < n, u k * u k * (v l * v l)) = (Σ k < n, Σ l < n, u l * u l * (v k * v k)))
    by apply sum_swap.
  apply Rmult_le_reg_l with 2; [lra|].
  replace (2 * (Σ k < n, Σ l < n, u k * u k * (v l * v l)))
    with (Σ k < n, Σ l < n, (u k * u k * (v l * v l) + u l * u l * (v k * v k))).
  - rewrite <- sum_scale. apply sum_le; intros k _. rewrite <- sum_scale. apply sum_le; intros l _.
    assert (0 <= (u k * v l - u l * v k) * (u k * v l - u l * v k)) by apply Rle_0_sqr. nra.
  - rewrite (sum_ext n _ (fun k => sum n (fun l => u k * u k * (v l * v l)) + sum n (fun l => u l * u l * (v k * v k))))
      by (intros; apply sum_plus).
    rewrite sum_plus, <- mirror. ring.
Qed.
